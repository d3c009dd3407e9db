"""Installs tfloader. Version ranges are those that a test run proved, the oldest set included (docs/development.md)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "tfloader/__init__.py").read_text("utf-8")).group(1)

setup(
    name="tfloader",
    version=VERSION,
    description="Public pretrained Transformers as live Keras 3 models on TensorFlow, exactly or not at all.",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["tfloader", "tfloader.*"]),
    package_data={
        "tfloader": ["py.typed", "*.pyi"],
        "tfloader.assets": [
            "*/config.json",
            "*/generation_config.json",
            "*/*.safetensors",
            "*/vocab.txt",
            "*/tokenizer*.json",
            "*/README.md",
        ],
    },
    python_requires=">=3.10",
    install_requires=[
        "tensorflow>=2.18,<3",
        "keras>=3.13,<4",
        "numpy>=1.26",
        "ml-dtypes>=0.4",
        "h5py>=3.11",
        "safetensors>=0.4.3",
        "tokenizers>=0.21",
        "sentencepiece>=0.2",
        "requests>=2.31",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": ["pytest>=8", "hypothesis>=6.100", "pyright[nodejs]>=1.1.390", "ruff>=0.8"],
        "torch": ["torch>=2.6"],
        "onnx": ["tf2onnx>=1.17", "onnx", "onnxruntime"],
        "litert": ["ai-edge-litert"],
        "pictures": ["matplotlib>=3.8"],
    },
    entry_points={"console_scripts": ["tfloader = tfloader.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Natural Language :: Chinese (Simplified)",
        "Natural Language :: English",
    ],
)
