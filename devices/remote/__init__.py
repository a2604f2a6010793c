"""Measuring on another machine, reached over ssh.

`queue`, `worker` and `server` work there, in one file that `bundle` builds with the modules that measure here; `link`
and `openssh` lead there, `state` and `transfer` keep track of what is there, and `device` hides it all.
"""
