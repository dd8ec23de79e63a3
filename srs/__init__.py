"""The application: settings, pipeline, reports and commands. It composes `training`, `smoothing` and `regions`."""
