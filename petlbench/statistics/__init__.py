"""What the numbers of a comparison can and cannot tell: pure functions of arrays."""
