"""D-SDS (arXiv:2303.15413) on Score Jacobian Chaining (arXiv:2212.00774): the method itself."""

__version__ = "0.1.0"
