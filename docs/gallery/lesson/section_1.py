r"""
A tutorial
==========

Text with :math:`\alpha_t`.
"""

import pushforward as pf

print(pf.families())
