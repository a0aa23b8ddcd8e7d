from prototxt_gen.architectures.igcv2 import IgcV2


class IgcV2II(IgcV2):
    """IGC-V2 of tables 2 and 5: one width, no skips, K * K = C."""

    name = "igcv2-II"
    title = "IGC-V2 II (C{width})"
    downsampling = False
