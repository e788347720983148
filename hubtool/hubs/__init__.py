"""Remote catalogues, and the download of one verified file."""
