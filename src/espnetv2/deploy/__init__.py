"""From a trained network to what devices run: deploy form, exporters, engines, verification."""
