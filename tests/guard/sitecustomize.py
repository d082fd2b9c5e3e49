"""Run by every Python whose PYTHONPATH begins with this folder, before anything else: no network in tests' children."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

import no_network

no_network.install()

# The environment's own sitecustomize, which this one hides.
_hidden = PathFinder.find_spec("sitecustomize", [path for path in sys.path if path != str(no_network.FOLDER)])
if _hidden is not None and _hidden.loader is not None:
    _hidden.loader.exec_module(module_from_spec(_hidden))
