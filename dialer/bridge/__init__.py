"""The bridge: from Multcall's lists to the PBXs' queues, and what Multcall sends later."""
