"""What an adapter is: modules and the change each makes."""
