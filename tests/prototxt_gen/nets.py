"""Every network of the paper's tables, and any other, for tests."""

from google.protobuf import text_format

from prototxt_gen.architecture import Options
from prototxt_gen.experiment import Experiment, build
from prototxt_gen.proto import pb
from prototxt_gen.summary import PLAIN_TABLES, paper_tables


def table_rows(*tables):
    """(table, row) for tables with counted networks."""
    return [(name, row) for name in tables for row in paper_tables()[name]["rows"]]


def experiment(table: str, row: dict, **changes) -> Experiment:
    options = Options(
        width=row["C"],
        depth=row.get("depth", paper_tables()[table].get("depth")),
        downsampling=False if table in PLAIN_TABLES else None,
        layers_from=changes.pop("layers_from", "each-stage"),
    )
    return Experiment(row["arch"], options, **changes)


def label(value) -> str:
    """pytest id"""
    return f"{value['arch']}_c{value['C']}_d{value.get('depth', '')}" if isinstance(value, dict) else value


def net_of(arch="igcv2", options=None, name="train_val.prototxt", **changes) -> "pb.NetParameter":
    return text_format.Parse(build(Experiment(arch, options or Options(), **changes)).texts[name], pb.NetParameter())
