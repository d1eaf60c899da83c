"""What the numbers of a comparison can and cannot tell.

Pure functions of arrays, between `panel`, which makes the arrays of a comparison, and `judge`,
which writes what they tell on its board.
"""

# Of every interval. Equal methods are told apart with a probability of 1 - LEVEL at most.
LEVEL = 0.95
