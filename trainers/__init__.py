import gateway  # noqa: F401  sets what must be set before onnxruntime is imported
