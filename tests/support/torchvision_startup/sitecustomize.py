"""Read at the start of every Python process of vLLM and Optimum that the tests start, and of no other.

torchvision is published for the torch with CUDA. Beside the torch for CPUs its C++ operators cannot be loaded, and its
import fails where it describes two of them. Nothing here uses these; it is enough to declare them first.
"""

import sys
from typing import Any


class _Declare:
    def find_spec(self, name: str, *_: Any) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            import torch

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in ("nms", "qnms"):
                    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                torch.torchvision_operators = library  # declared for as long as somebody holds it


sys.meta_path.insert(0, _Declare())  # type: ignore[arg-type]
