"""What the numbers of a comparison can and cannot tell: pure functions of arrays."""

# Of every interval. Equal methods are told apart with a probability of 1 - LEVEL at most.
LEVEL = 0.95
