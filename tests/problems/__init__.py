"""Problems: one test module each."""
