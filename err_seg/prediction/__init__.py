"""ERR-Seg as people use it: a model that labels images of any kind with any class names."""
