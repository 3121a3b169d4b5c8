"""What pyproject.toml cannot say: the folder export/ is installed as medvar_export, beside packages that are found."""

from setuptools import find_packages, setup

export = ["medvar_export", *(f"medvar_export.{name}" for name in find_packages("export"))]
setup(
    packages=[*find_packages(include=["medvar_engine*", "napari_medvar*"]), *export],
    package_dir={"medvar_export": "export"},
)
