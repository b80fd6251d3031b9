//! Files, folders and blobs.

use super::{open, open_branch, resolve};
use crate::{
    CodeCommit,
    api::*,
    draft::{Draft, Words, mode, mode_name},
    faults, names,
    objects::{self, Object},
};
use wire::{Context, Fault};

/// The largest file that the API answers, in bytes.
/// <https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html>
const MOST_BYTES: u64 = 6 << 20;

pub(crate) async fn get_blob(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetBlobInput,
) -> Result<GetBlobOutput, Fault> {
    let (_, bare) = open(codecommit, ctx, &input.repository_name, "codecommit:GetBlob")?;
    let id = &input.blob_id;
    if !names::is_object_id(id) {
        return Err(Fault::new(
            "InvalidBlobIdException",
            "A blob ID is a full SHA-1 hash of 40 characters.",
        ));
    }
    match objects::object(&bare, id, MOST_BYTES).await? {
        Object::Found { kind, content } if kind == "blob" => {
            Ok(GetBlobOutput { content: Some(content.into()) })
        }
        Object::Large => Err(faults::too_large("FileTooLargeException", MOST_BYTES as usize)),
        _ => Err(Fault::new("BlobIdDoesNotExistException", format!("Blob {id} does not exist"))),
    }
}

pub(crate) async fn get_file(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetFileInput,
) -> Result<GetFileOutput, Fault> {
    let (_, bare) = open(codecommit, ctx, &input.repository_name, "codecommit:GetFile")?;
    let path = names::file(&input.file_path)?;
    let commit = resolve(&bare, input.commit_specifier.as_deref()).await?;
    let entry = objects::entry(&bare, &commit, path).await?;
    let file = entry.and_then(|entry| mode_name(&entry.mode).map(|mode| (entry, mode)));
    let (entry, mode) = file.ok_or_else(|| faults::no_file(path))?;
    let content = match objects::object(&bare, &entry.id, MOST_BYTES).await? {
        Object::Found { content, .. } => content,
        Object::Large => {
            return Err(faults::too_large("FileTooLargeException", MOST_BYTES as usize));
        }
        Object::Missing => return Err(faults::no_file(path)),
    };
    Ok(GetFileOutput {
        commit_id: Some(commit),
        blob_id: Some(entry.id),
        file_path: Some(entry.path),
        file_mode: Some(mode),
        file_size: Some(content.len() as i64),
        file_content: Some(content.into()),
    })
}

pub(crate) async fn get_folder(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetFolderInput,
) -> Result<GetFolderOutput, Fault> {
    let (_, bare) = open(codecommit, ctx, &input.repository_name, "codecommit:GetFolder")?;
    let path = names::folder(&input.folder_path)?;
    let commit = resolve(&bare, input.commit_specifier.as_deref()).await?;
    let missing = || {
        let message = format!("Could not find path {path}");
        Fault::new("FolderDoesNotExistException", message)
    };
    let tree_id = match path {
        "" => {
            let content = match objects::object(&bare, &commit, MOST_BYTES).await? {
                Object::Found { content, .. } => content,
                _ => return Err(missing()),
            };
            objects::commit(&content).tree
        }
        path => {
            let entry = objects::entry(&bare, &commit, path).await?;
            let entry = entry.filter(|entry| entry.mode == "040000").ok_or_else(missing)?;
            entry.id
        }
    };
    let mut output = GetFolderOutput {
        commit_id: Some(commit),
        folder_path: Some(path.to_owned()),
        sub_folders: Some(Vec::new()),
        files: Some(Vec::new()),
        symbolic_links: Some(Vec::new()),
        sub_modules: Some(Vec::new()),
        tree_id: None,
    };
    for entry in objects::tree(&bare, &tree_id, false).await? {
        let absolute = match path {
            "" => entry.path.clone(),
            path => format!("{path}/{}", entry.path),
        };
        let (id, absolute_path, relative_path) = (Some(entry.id), Some(absolute), Some(entry.path));
        match (&*entry.mode, mode_name(&entry.mode)) {
            ("040000", _) => {
                let folder = Folder { tree_id: id, absolute_path, relative_path };
                output.sub_folders.get_or_insert_default().push(folder);
            }
            ("160000", _) => {
                let module = SubModule { commit_id: id, absolute_path, relative_path };
                output.sub_modules.get_or_insert_default().push(module);
            }
            ("120000", file_mode) => {
                let link = SymbolicLink { blob_id: id, absolute_path, relative_path, file_mode };
                output.symbolic_links.get_or_insert_default().push(link);
            }
            (_, file_mode) => {
                let file = File { blob_id: id, absolute_path, relative_path, file_mode };
                output.files.get_or_insert_default().push(file);
            }
        }
    }
    output.tree_id = Some(tree_id);
    Ok(output)
}

pub(crate) async fn put_file(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: PutFileInput,
) -> Result<PutFileOutput, Fault> {
    let (name, branch) = (&input.repository_name, &input.branch_name);
    let (repository, bare) = open_branch(codecommit, ctx, name, branch, "codecommit:PutFile")?;
    let path = names::file(&input.file_path)?;
    let mut draft = Draft::begin(&bare, branch, input.parent_commit_id.as_deref()).await?;
    let before = draft.file(path).cloned();
    let blob = draft.put(path, &input.file_content, input.file_mode).await?;
    let same_mode = |before: &str| input.file_mode.is_none_or(|given| mode(given) == before);
    if before.is_some_and(|(mode, id)| id == blob && same_mode(&mode)) {
        return Err(Fault::new(
            "SameFileContentException",
            format!("The file {path} has this content and mode already."),
        ));
    }
    let words = Words { name: input.name, email: input.email, message: input.commit_message };
    let (commit, tree) = draft.commit(codecommit, ctx, (&repository.id, branch), &words).await?;
    Ok(PutFileOutput { commit_id: Some(commit), blob_id: Some(blob), tree_id: Some(tree) })
}

pub(crate) async fn delete_file(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: DeleteFileInput,
) -> Result<DeleteFileOutput, Fault> {
    let (name, branch) = (&input.repository_name, &input.branch_name);
    let (repository, bare) = open_branch(codecommit, ctx, name, branch, "codecommit:DeleteFile")?;
    let path = names::file(&input.file_path)?;
    let mut draft = Draft::begin(&bare, branch, Some(&input.parent_commit_id)).await?;
    let keep = input.keep_empty_folders.unwrap_or_default();
    let (_, blob) = draft.remove(path, keep).await?;
    let words = Words { name: input.name, email: input.email, message: input.commit_message };
    let (commit, tree) = draft.commit(codecommit, ctx, (&repository.id, branch), &words).await?;
    Ok(DeleteFileOutput {
        commit_id: Some(commit),
        blob_id: Some(blob),
        tree_id: Some(tree),
        file_path: Some(path.to_owned()),
    })
}
