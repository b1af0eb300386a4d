"""One file per data set or corpus, and the preprocessing that travels with weights."""
