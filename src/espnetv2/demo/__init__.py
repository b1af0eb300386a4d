"""The web page: try, compare, film, open a unit, look at own runs. Started by `espnetv2 demo`."""
