"""From a recipe to trained weights: schema, schedules, the Lightning module, the run."""
