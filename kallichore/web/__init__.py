"""Everything that speaks HTTP or WebSocket to clients.

`door` accepts connections and sorts them: channels go to their session, everything else goes through
Hypercorn to the Quart application in `app`, whose routes are the records in `operations`.
"""
