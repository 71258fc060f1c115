"""The contract: ``kallichore.json``, and the proof that everything else keeps to it."""
