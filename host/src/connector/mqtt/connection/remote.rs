//! `Remote`: where a broker is and how it is reached; opens transports to it. Knows
//! nothing of what is said there.

use std::{path::Path, sync::Arc};

use tokio::{net::TcpStream, task};
use tokio_rustls::TlsConnector;

use super::{
    socket::Socket,
    tls::{self, TlsError},
    transport::Transport,
};
use crate::{
    connector::mqtt::SessionError,
    resource::endpoint::{MqttSettings, Tls},
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Remote {
    /// `host:port`.
    pub address: String,
    /// Its files are read anew for each connection.
    pub tls: Option<Tls>,
}

impl Remote {
    /// In the clear.
    pub fn plain(address: String) -> Self {
        Remote { address, tls: None }
    }

    /// Where an endpoint says, with its files looked for below the site folder.
    pub fn of(settings: &MqttSettings, home: &Path) -> Self {
        let tls = settings.tls.as_ref().map(|it| it.below(home));
        Remote { address: settings.address.clone(), tls }
    }

    pub(super) async fn dial(&self) -> Result<Transport, SessionError> {
        match &self.tls {
            None => Ok(Transport::Plain(self.socket().await?)),
            // Apart, or those in the clear would take as much memory.
            Some(tls) => Box::pin(self.dial_encrypted(tls)).await,
        }
    }

    async fn socket(&self) -> Result<Socket, SessionError> {
        let stream = TcpStream::connect(&self.address).await.map_err(SessionError::Io)?;
        stream.set_nodelay(true).map_err(SessionError::Io)?;
        Ok(Socket::new(stream))
    }

    async fn dial_encrypted(&self, tls: &Tls) -> Result<Transport, SessionError> {
        let name = tls::server_name(&self.address)?;
        let tls = tls.clone();
        let client = task::spawn_blocking(move || tls::client(&tls)).await;
        let client = client.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        let socket = self.socket().await?;
        let stream = TlsConnector::from(Arc::new(client)).connect(name, socket).await;
        Ok(Transport::layered(stream.map_err(TlsError::Handshake)?))
    }
}
