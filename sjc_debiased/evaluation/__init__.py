"""The paper's measurements (D-SDS Sec. 5) on finished runs: what is measured, and how sure it is."""
