"""The bridge: move requests from Multcall's lists to the PBXs' queues, and deliver codes."""
