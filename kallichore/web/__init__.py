"""Everything that speaks HTTP or WebSocket to clients.

`door` sorts what comes in: channels go to their session, everything else goes through Hypercorn to
the Quart application in `app`, whose routes are the records in `operations`.
"""
