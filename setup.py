"""What the package is called, what it needs and what it installs."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_version() -> str:
    """Return `__version__` from the package's text: importing it would need its dependencies."""
    text = (HERE / "amphora" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if match is None:
        raise SystemExit('amphora/__init__.py has no line like: __version__ = "1.2.3"')
    return match.group(1)


def read_description() -> str:
    """Return the README, or nothing in a tree that has none."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


TEST = [
    "amqp>=5.2",
    "flask>=3",
    "gunicorn>=23",
    "hypothesis>=6.100",
    "pika>=1.3",
    "pytest>=9",
    "pytest-xdist>=3.6",
    "trustme>=1.1",
]
LINT = ["ruff>=0.17.6,<0.18"]  # another minor release may format otherwise
TYPES = ["mypy>=1.13", "pytest>=9", "types-gevent>=24"]  # amphora.testing is a plugin of pytest
DOCS = ["furo>=2024.8.6", "myst-parser>=4", "sphinx>=8"]
# The others in the comparison of benchmarks/, and what draws it.
BENCH = ["aio-pika>=9", "matplotlib>=3.8", "nameko>=2.14", "pika>=1.3"]

setup(
    name="amphora",
    version=read_version(),
    description="Remote calls between gevent programs over RabbitMQ",
    long_description=read_description(),
    long_description_content_type="text/markdown",
    author="the amphora authors",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords=["rpc", "amqp", "rabbitmq", "gevent"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Distributed Computing",
        "Topic :: System :: Networking",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["amphora", "amphora.*"]),
    package_data={"amphora": ["py.typed"]},
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=[
        "click>=8",
        "gevent>=24",
        "msgspec>=0.18",
        "pamqp>=4.0.1",  # earlier releases loop for ever on a 22-byte header frame
        "rich>=13",
    ],
    extras_require={
        "test": TEST,
        "lint": LINT,
        "types": TYPES,
        "docs": DOCS,
        "bench": BENCH,
        "dev": [*TEST, *LINT, *TYPES, *DOCS, "tox>=4.24"],
    },
    entry_points={
        "console_scripts": [
            "amphora = amphora.cli:main",
            "arpc_msg_sender = amphora.arpc.sender:main",
        ],
        "pytest11": ["amphora = amphora.testing.plugin"],
    },
)
