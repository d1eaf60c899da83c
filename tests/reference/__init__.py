"""Slow, independent float64 forward passes, written from the formulas and not from the code.

They share nothing with petlbench but the names of the parameters, so that an error in the
package cannot hide in its own test.
"""
