"""Hooks of training runs, registered for every OpenMMLab package."""

from .non_finite_loss import NonFiniteError, StopOnNonFiniteLoss

__all__ = ['NonFiniteError', 'StopOnNonFiniteLoss']
