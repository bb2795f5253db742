"""What the service says without being asked: receive callbacks, decode their bodies."""

from ci_live_audit.callbacks.receiver import CallbackReceiver
from ci_live_audit.wire.callbacks import Callback, decode

__all__ = ["Callback", "CallbackReceiver", "decode"]
