"""Algorithm 2: points that arrive one at a time, and regions in a file that several processes share."""
