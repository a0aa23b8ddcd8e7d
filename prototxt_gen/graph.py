"""Who reads what in a net. A blob that is rewritten in place counts as a new one."""

from collections import defaultdict

from prototxt_gen.command_line import Invalid
from prototxt_gen.proto import pb


class Graph:
    """layers: copies of the net's. Layers are named by their place in the net; blobs by their writer and first name."""

    def __init__(self, net: "pb.NetParameter"):
        self.layers = [pb.LayerParameter.FromString(layer.SerializeToString()) for layer in net.layer]
        self.readers = defaultdict(list)  # (writer, blob name) -> places of the layers that read it
        self.writers = []  # per layer: {bottom's name: place of its writer, None for an input of the net}
        last = {}
        for i, layer in enumerate(self.layers):
            self.writers.append({bottom: last.get(bottom) for bottom in layer.bottom})
            for bottom in layer.bottom:
                self.readers[last.get(bottom), bottom].append(i)
            last.update((top, i) for top in layer.top)

    def next(self, i: int) -> int | None:
        """The only reader of layer i's only top, if it has one top, the same phases, and no other X in X/part."""
        layer = self.layers[i]
        readers = self.readers[i, layer.top[0]] if len(layer.top) == 1 else []
        if len(readers) != 1 or layer.loss_weight:
            return None
        reader = self.layers[readers[0]]
        prefixes = {prefix(layer.name), prefix(reader.name)} - {""}
        return readers[0] if phases(reader) == phases(layer) and len(reader.top) == 1 and len(prefixes) < 2 else None

    def untouched(self, blob: str, chain: list[int], reading: bool = False) -> bool:
        """True if between the chain's first and last layer none but its own writes (or reads) `blob`."""
        return not any(
            blob in layer.top or (reading and blob in layer.bottom)
            for i, layer in enumerate(self.layers[chain[0] : chain[-1]], chain[0])
            if i not in chain
        )

    def has_blob(self, name: str) -> bool:
        return any(name in layer.bottom or name in layer.top for layer in self.layers)

    def new_blob(self, name: str, part: str) -> str:
        """name/part, for layer `name`. Raises Invalid where there is such a blob."""
        blob = f"{name}/{part}"
        if self.has_blob(blob):
            raise Invalid(f"layer '{name}' needs a blob '{blob}', but there is another one: rename it")
        return blob

    def has_name(self, name: str, chain: list[int]) -> bool:
        """True if a layer outside the chain that can meet it has this name: Caffe takes weights by names."""
        return any(
            layer.name == name and meet(layer, self.layers[chain[0]])
            for i, layer in enumerate(self.layers)
            if i not in chain
        )

    def rename(self, writer: int, blob: str, new: str, readers: list[int] | None = None):
        """Another name for what `writer` writes: there and in all readers, or only in some readers."""
        if readers is None:
            readers = self.readers[writer, blob]
            _replace(self.layers[writer].top, blob, new)
        for reader in readers:
            _replace(self.layers[reader].bottom, blob, new)

    def rename_input(self, i: int):
        """Layer X's first bottom becomes X/in. Raises Invalid where there is another such blob."""
        layer = self.layers[i]
        blob = layer.bottom[0]
        if blob != f"{layer.name}/in":
            self.rename(self.writers[i][blob], blob, self.new_blob(layer.name, "in"))


def _replace(names, old: str, new: str):
    names[:] = [new if name == old else name for name in names]


def phases(layer) -> tuple[list, list]:
    """Rules that say where the layer is; equal ones say the same."""
    return list(layer.include), list(layer.exclude)


def meet(layer, other) -> bool:
    """False if rules of both say that they are in different nets."""
    return phases(layer) == phases(other) or not (any(phases(layer)) and any(phases(other)))


def prefix(name: str) -> str:
    """X of X/part"""
    return name.rpartition("/")[0]
