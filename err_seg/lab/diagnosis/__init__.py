"""Why pixels are wrong: upper bounds in mIoU by oracles, and where and in which classes the errors are."""
