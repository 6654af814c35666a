"""The web page: watch and steer the system in a browser.

Owns HTML, sessions of browsers and who may do what. What the operations do is in `steering`,
`dead_list` and `hangup`; what is shown is the snapshot of `monitor`.
"""
