"""HTTP clients and SDKs: how a call is seen on its way out and its answer on the way back."""
