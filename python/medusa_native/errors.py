"""What the package raises on purpose. The native core translates its own errors into these."""

from __future__ import annotations

__all__ = ["DeviceError", "InvalidArgument", "MedusaError", "ModelFormatError", "OutOfMemory"]


class MedusaError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidArgument(MedusaError, ValueError):  # noqa: N818 - the public name, see the API page
    """An argument is out of range or contradicts another."""


class ModelFormatError(MedusaError, ValueError):
    """A file, or a tensor of it, is not what it should be."""


class OutOfMemory(MedusaError, MemoryError):  # noqa: N818
    """A memory limit is too small for what was asked."""


class DeviceError(MedusaError, RuntimeError):
    """A device or an instruction set is missing or failed."""
