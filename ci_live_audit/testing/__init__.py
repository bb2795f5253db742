"""Testing kit: an emulator of the service, its streams and faults, and virtual time.

::

    emulator = Emulator()
    job_id = emulator.add_job(duration=30, script=[frame(5, "Porn", score=98)])
    async with emulator.client() as client:
        job = await client.query(job_id)
"""

from typing import TYPE_CHECKING

from ci_live_audit._lazy import exports

if TYPE_CHECKING:
    from ci_live_audit.testing.bodies import (
        callback_body as callback_body,
        callback_headers as callback_headers,
        callback_probe as callback_probe,
    )
    from ci_live_audit.testing.chaos import ChaosProxy as ChaosProxy, WireFault as WireFault
    from ci_live_audit.testing.emulator import Arrival as Arrival, Emulator as Emulator
    from ci_live_audit.testing.faults import Fault as Fault
    from ci_live_audit.testing.posting import Delivery as Delivery
    from ci_live_audit.testing.streams import frame as frame, sound as sound
    from ci_live_audit.testing.virtual_time import VirtualTimeLoop as VirtualTimeLoop
else:
    __getattr__, __dir__, __all__ = exports(
        __name__,
        {
            "bodies": "callback_body callback_headers callback_probe",
            "chaos": "ChaosProxy WireFault",
            "emulator": "Arrival Emulator",
            "faults": "Fault",
            "posting": "Delivery",
            "streams": "frame sound",
            "virtual_time": "VirtualTimeLoop",
        },
    )
