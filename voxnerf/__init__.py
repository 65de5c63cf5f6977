"""The renderer: SJC's voxel radiance field, its cameras, and its mesh.

Imports nothing of ours: torch and numpy, jaxtyping for the shapes in signatures, numba for the fused CPU
kernel, and scikit-image, scipy and trimesh for meshes. The field can be lifted out and used alone;
`field.Field` says what any field must do.

Naming: `dist` is a distance along a unit-length ray in scene units, `density` is a volume density per
scene unit, angles are in degrees at every boundary, and 0 degrees azimuth looks at the object's front.
"""
