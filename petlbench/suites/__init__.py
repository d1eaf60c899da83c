"""One file per suite; the file's name, with dashes, is the suite's name."""
