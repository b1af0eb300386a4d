"""One file per task: raw outputs to results, losses, scores, named evaluation protocols."""
