"""Where weights come from, what their names mean here, and how they are loaded safely."""
