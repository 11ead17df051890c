"""What the drafters `eagle`, `mtp` and `medusa` have in common: heads on the target's own hidden states.

`adopted` is a head ready to run, `chains` grows trees token by token, `followed` knows what was read of a request.
"""

from paceline.drafters._heads.adopted import HeadDrafter, folder_of
from paceline.drafters._heads.chains import Chains

__all__ = ["Chains", "HeadDrafter", "folder_of"]
