"""What looks at runs while they go on: the viewer, the app, the mirror for TensorBoard."""
