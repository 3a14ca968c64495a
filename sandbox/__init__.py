"""A small Azure on localhost: Resource Manager's calls that the product makes, with AKS nodes as folders behind them.

    async with sandbox.serve(Path("fleets/demo.yaml")) as box:
        ...  # box.environ, box.stats(), box.node_dir(name), box.inject(fault)

`python -m sandbox serve --fleet FILE` does the same from a terminal. Not deployed.
"""

from sandbox.faults import Fault
from sandbox.fleet import Fleet, FleetError, load, parse
from sandbox.resources import Sandbox
from sandbox.server import serve

__all__ = ["Fault", "Fleet", "FleetError", "Sandbox", "load", "parse", "serve"]
