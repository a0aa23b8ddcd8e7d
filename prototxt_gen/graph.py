"""Who reads what in a net. A blob that is rewritten in place counts as a new one."""

from collections import defaultdict

from prototxt_gen.proto import pb


class Graph:
    """layers: copies of the net's. Layers are named by their place in the net."""

    def __init__(self, net: "pb.NetParameter"):
        self.layers = [pb.LayerParameter.FromString(layer.SerializeToString()) for layer in net.layer]
        self._readers = defaultdict(list)  # (writer, blob name) -> places of the layers that read it
        self._writers = []  # per layer: {bottom's name: place of its writer}
        last = {}
        for i, layer in enumerate(self.layers):
            self._writers.append({bottom: last.get(bottom) for bottom in layer.bottom})
            for bottom in layer.bottom:
                self._readers[last.get(bottom), bottom].append(i)
            last.update((top, i) for top in layer.top)

    def next(self, i: int) -> int | None:
        """The only reader of layer i's only top, if it has one top, the same phases, and no other X in X/part."""
        layer = self.layers[i]
        readers = self._readers[i, layer.top[0]] if len(layer.top) == 1 else []
        if len(readers) != 1 or layer.loss_weight:
            return None
        reader = self.layers[readers[0]]
        same_phases = list(reader.include) == list(layer.include) and list(reader.exclude) == list(layer.exclude)
        prefixes = {prefix(layer.name), prefix(reader.name)} - {""}
        return readers[0] if same_phases and len(reader.top) == 1 and len(prefixes) < 2 else None

    def untouched(self, blob: str, chain: list[int], reading: bool = False) -> bool:
        """True if between the chain's first and last layer none but its own writes (or reads) `blob`."""
        return not any(
            blob in layer.top or (reading and blob in layer.bottom)
            for i, layer in enumerate(self.layers[chain[0] : chain[-1]], chain[0])
            if i not in chain
        )

    def can_end_in_place(self, chain: list[int]) -> bool:
        """False if the chain ends by writing over its bottom and the bottom cannot be renamed."""
        writer = self._writers[chain[0]][self.layers[chain[0]].bottom[0]]
        if not self._ends_in_place(chain):
            return True
        return writer is not None and not self.layers[writer].include and not self.layers[writer].exclude

    def end_in_place(self, chain: list[int]):
        """If the chain ends by writing over its bottom, gives the bottom another name."""
        if not self._ends_in_place(chain):
            return
        blob = self.layers[chain[0]].bottom[0]
        writer = self._writers[chain[0]][blob]
        for layer, names in [(self.layers[writer], "top")] + [
            (self.layers[i], "bottom") for i in self._readers[writer, blob]
        ]:
            renamed = [f"{blob}/in" if name == blob else name for name in getattr(layer, names)]
            layer.ClearField(names)
            getattr(layer, names).extend(renamed)

    def _ends_in_place(self, chain):
        return self.layers[chain[0]].bottom[0] == self.layers[chain[-1]].top[0]


def prefix(name: str) -> str:
    """X of X/part"""
    return name.rpartition("/")[0]
