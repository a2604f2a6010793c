"""Measuring on another machine, reached over ssh.

`queue` and `runner` work there, in one file that `bundle` builds of the modules that measure here; `link` and `openssh`
lead there, and `device` is the device that hides it all.
"""
