"""One file per architecture: each holds one Architecture class. The name is the file's, or the class's `name`."""

import importlib
import pkgutil

from prototxt_gen.architecture import Architecture


def _found():
    for module in pkgutil.iter_modules(__path__):
        contents = vars(importlib.import_module(f"{__name__}.{module.name}")).values()
        cls = next(
            c
            for c in contents
            if isinstance(c, type) and issubclass(c, Architecture) and c.__module__.endswith(f".{module.name}")
        )
        yield getattr(cls, "name", module.name), cls


ARCHITECTURES: dict[str, type[Architecture]] = dict(_found())
