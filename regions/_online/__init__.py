"""Points that arrive one at a time (Algorithm 2): regions in a file that processes share."""
