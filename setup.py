"""Packaging of ERR-Seg; the exact set of versions that the tests run with is in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version_line = re.search(r'^__version__ = "(.+)"$', (here / "err_seg/version.py").read_text(), re.MULTILINE)
if version_line is None:
    raise RuntimeError('err_seg/version.py must hold a line: __version__ = "..."')

setup(
    name="err_seg",
    version=version_line.group(1),
    description="ERR-Seg: efficient redundancy reduction for open-vocabulary semantic segmentation",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["err_seg", "err_seg.*"]),
    package_data={"err_seg": ["data/tables/*", "mini/*.safetensors", "py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.7",
        "torchvision>=0.22",
        "open_clip_torch>=2.30",
        "timm>=1.0.12",
        "fvcore>=0.1.5.post20221221",
        "numpy>=1.26",
        "pillow>=10.1",
        "safetensors>=0.4.5",
        "huggingface_hub>=0.26",
        "pyyaml>=6.0",
        "scipy>=1.11",
        "pycocotools>=2.0.8",
        "matplotlib>=3.8",
        "accelerate>=1.2",
        "tensorboard>=2.15",
        "filelock>=3.12",
        "psutil>=5.9",
        "tqdm>=4.66",
        "rich>=13.7",
    ],
    extras_require={
        "web": ["gradio>=6.0"],
        "export": ["onnx>=1.17", "onnxscript>=0.3", "onnxruntime>=1.20"],
        "ray": ["ray[data]>=2.40"],
        "video": ["av>=13"],
        "dev": ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "ruff>=0.8", "mypy>=1.13"],
    },
    classifiers=[
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
