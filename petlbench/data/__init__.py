"""From files on disk to arrays of decoded images."""
